"""Files and object storage: paths and addresses, atomic writes, the mirror of S3."""
