"""Storage: files that are whole or not there, locks and leases on them, and objects in the cloud.

It knows nothing of catalogs or runs; `enrich.staging` makes a run on remote storage out of it.
"""
