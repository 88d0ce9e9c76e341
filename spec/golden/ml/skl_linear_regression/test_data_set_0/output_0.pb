Boutput_0J@ЮNCцЗ8CЄ*РBХ
C^VC:pC}$CаFCFFCШФCШ¬\CЦPACу,CO)CёoKBІчоB