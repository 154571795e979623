# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What the lab takes from the machine it runs on: apt, programs, one process at a time.
"""
