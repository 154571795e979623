# SPDX-License-Identifier: LGPL-2.1-or-later

"""The case of each PFN, decided from metadata alone."""
