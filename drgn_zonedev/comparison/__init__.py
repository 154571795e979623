# SPDX-License-Identifier: LGPL-2.1-or-later

"""Two reports, and what came, went or changed between them."""
