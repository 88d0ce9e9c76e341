# What systemd does for a socket-activated service: perl activate.pl PATH-OR-EMPTY PROGRAM ARGUMENT...
# Listens at a loopback port (and at PATH), prints the port, and becomes the program with the sockets as descriptors 3 and 4.
use strict;
use Socket;
use POSIX ();
my $path = shift @ARGV;
my $count = $path eq "" ? 1 : 2;
socket(my $tcp, AF_INET, SOCK_STREAM, 0) or die "socket: $!";
bind($tcp, pack_sockaddr_in(0, INADDR_LOOPBACK)) or die "bind: $!";
listen($tcp, 16) or die "listen: $!";
my ($port) = unpack_sockaddr_in(getsockname($tcp));
my @sockets = (fileno($tcp));
if ($count == 2) {
  socket(my $unix, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
  bind($unix, pack_sockaddr_un($path)) or die "bind: $!";
  listen($unix, 16) or die "listen: $!";
  push @sockets, fileno($unix);
  $main::keep = $unix; # not closed at the end of this block
}
POSIX::dup2($sockets[$_], 10 + $_) for 0 .. $#sockets; # out of the way first
for (0 .. $#sockets) {
  POSIX::dup2(10 + $_, 3 + $_);
  POSIX::close(10 + $_);
}
$| = 1;
print "activated $port\n";
$ENV{LISTEN_FDS} = $count;
$ENV{LISTEN_PID} = $ENV{WRONG_PID} ? 1 : $$;
exec @ARGV or die "exec: $!";
