# SPDX-License-Identifier: LGPL-2.1-or-later

"""Reads what the log of an oops says about struct pages. No dump is needed."""
