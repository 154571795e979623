# SPDX-License-Identifier: LGPL-2.1-or-later

"""
What every page is: a kind for each PFN, from the words that decide it.
"""
