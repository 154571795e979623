# SPDX-License-Identifier: LGPL-2.1-or-later

"""Renderings of what the tool found. Nothing in here reads a program."""
