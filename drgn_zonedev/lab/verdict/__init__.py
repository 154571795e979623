# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Whether the tool's results for a guest are true.
"""
