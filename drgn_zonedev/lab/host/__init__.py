# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What the lab uses of the host: apt, programs, locks.
"""
