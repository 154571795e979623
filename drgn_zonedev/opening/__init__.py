# SPDX-License-Identifier: LGPL-2.1-or-later

"""Opens dumps, guests and running kernels."""
