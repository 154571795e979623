# SPDX-License-Identifier: LGPL-2.1-or-later

"""Bugs of kernels that leave a state, or a log, which shows them."""
