# SPDX-License-Identifier: LGPL-2.1-or-later

"""``zonedev`` on the command line."""
