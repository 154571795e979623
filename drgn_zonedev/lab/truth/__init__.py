# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What a guest's own kernel says, asked by a module of ours.
"""
