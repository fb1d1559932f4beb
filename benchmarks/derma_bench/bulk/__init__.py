"""``derma-bench bulk``: does ``derma bulk`` reach what the service can do, and survive being killed?"""
