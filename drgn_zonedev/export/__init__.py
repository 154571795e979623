# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Exports: the part of a kernel's memory that this tool looks at, as a vmcore that
is small enough to mail and to commit, and that drgn opens like any other.
"""
