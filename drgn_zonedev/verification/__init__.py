# SPDX-License-Identifier: LGPL-2.1-or-later

"""Struct pages against what is promised of them."""
