# SPDX-License-Identifier: LGPL-2.1-or-later
"""
What the plugin's speed is measured with: scripts/bench.

Every claim is a ratio of two medians from one run, taken in turns, because the
machine under it is never the same twice.
"""
