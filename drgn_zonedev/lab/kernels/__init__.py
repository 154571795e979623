# SPDX-License-Identifier: LGPL-2.1-or-later

"""
The kernels of the lab, and how they are fetched or built.
"""
