# SPDX-License-Identifier: LGPL-2.1-or-later

"""
Users of device pages: which pages of a device are referenced, pinned or mapped, by which
processes and files, and who waits until they are not.
"""
