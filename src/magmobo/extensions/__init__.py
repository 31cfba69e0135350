"""The mediation plane, host side: which extensions there are, what they may do, and everything between them and the
node. No code of an extension ever runs in this process.
"""
