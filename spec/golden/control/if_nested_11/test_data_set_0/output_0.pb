ByJTø-@9vB.¯ A®
–<ÅiCdZB