# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The answers of a guest's own kernel, to a module of ours.
"""
