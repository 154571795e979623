# SPDX-License-Identifier: LGPL-2.1-or-later

"""
A picture of physical memory: its contents (``scene``), its layout (``layout``, ``strips``), the
marks of cases (``glyphs``), and the drawings (``terminal``, ``svg``).
"""
