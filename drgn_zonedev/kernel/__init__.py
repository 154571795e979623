# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Kernel Helpers
--------------

What the kernel says, without policy: helpers in drgn's style, one file per
kernel subsystem, named like the kernel's functions. They decide by what the
debugging information holds, never by a release number.
"""
