ByJTø-@L	Ó?.¯ A®
–<ÅiCTO:E