# SPDX-License-Identifier: LGPL-2.1-or-later

"""What every room may use: intervals, sets, strings, signals, directories, results that print."""
