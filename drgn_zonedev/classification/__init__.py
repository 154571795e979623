# SPDX-License-Identifier: LGPL-2.1-or-later

"""Which case each PFN is, decided from metadata alone."""
