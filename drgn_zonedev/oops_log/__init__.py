# SPDX-License-Identifier: LGPL-2.1-or-later

"""What a log of an oops says of struct pages, whether there is a dump or not."""
