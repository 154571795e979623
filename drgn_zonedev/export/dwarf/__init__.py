# SPDX-License-Identifier: LGPL-2.1-or-later

"""The DWARF of an export's vmlinux. Nothing in here knows of kernels."""
