# SPDX-License-Identifier: LGPL-2.1-or-later

"""How dumps, guests and running kernels are opened."""
