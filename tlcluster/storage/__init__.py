"""Objects in a directory or in S3: verified, cached. boto3 is imported only here."""
