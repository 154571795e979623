# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A picture of physical memory: what goes where (``layout``, ``strips``), what it looks like
(``marks``), and how it is drawn (``terminal``, ``svg``).
"""
