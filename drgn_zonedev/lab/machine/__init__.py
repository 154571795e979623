# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A guest: how it is made, booted, stopped and ended.
"""
