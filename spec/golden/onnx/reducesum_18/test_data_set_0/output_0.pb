Boutput_0J %@«€§@H›@`k
@Ïx@jŸV@ÈQ@¢pT@