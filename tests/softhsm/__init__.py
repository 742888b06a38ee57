"""hwkm's token layer, recipients and provisioning, on real PKCS#11 modules.

Most tests run on SoftHSM; those that ask what a module can do run on p11-kit's client and on a
TPM too. Nothing here stands in for a module.
"""
