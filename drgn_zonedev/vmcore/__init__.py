# SPDX-License-Identifier: LGPL-2.1-or-later

"""The dump file itself: its headers, what it left out, and how its memory is read."""
