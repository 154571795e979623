# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Does the tool say of a guest what is true?
"""
