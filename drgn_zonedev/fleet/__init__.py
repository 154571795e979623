# SPDX-License-Identifier: LGPL-2.1-or-later

"""Many dumps at once: found, checked each in a process of its own, and kept in one store."""
