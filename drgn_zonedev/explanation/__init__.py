# SPDX-License-Identifier: LGPL-2.1-or-later

"""Everything that is known about one page."""
