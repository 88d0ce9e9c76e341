
Bout4Jä