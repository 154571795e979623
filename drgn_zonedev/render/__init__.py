# SPDX-License-Identifier: LGPL-2.1-or-later

"""Renderings of reports. Nothing here reads a program."""
