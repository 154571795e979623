# SPDX-License-Identifier: LGPL-2.1-or-later

"""All that is known of one page."""
