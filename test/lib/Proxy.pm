package Proxy;

# A TCP proxy on loopback that spoils connections on purpose (test/proxy/proxy.c).
#
#   my $proxy = Proxy->start(upstream => $wallet->{port}, seed => 42);
#   $proxy->set(mode => 'cut_reply', bytes => 20, count => 1);
#   ... $proxy->url, $proxy->stats->{cut_reply} ...
#
# set() replaces what was set before; it takes, besides the mode,
#   probability   of each request (of each connection for refuse); 1 if not given
#   count         at most so many times, then everything passes
#   match         only requests that begin with this text, such as 'POST'
# and the modes are
#   pass
#   delay         ms => N       hold the reply so long; the request with side => 'request'
#   jitter        ms => N       the same, for 0 to N ms
#   cut_request   bytes => N    after N bytes of the request both connections are closed
#   cut_reply     bytes => N    after N bytes of the reply; 0: the wallet has replied, and
#                               no byte of it arrives.  reset => 1: RST instead of FIN
#   half_open                   the wallet's connection is closed, the client's stays and
#                               nobody ever answers on it
#   blackhole                   nothing is read or passed on until the next set(); then it
#                               all moves on.  With probability 1, also what was under way,
#                               and new connections wait in the backlog
#   refuse                      connections are reset; with probability 1 they are refused
#                               and those that exist are reset
# A request that the client gave up while it was held is delivered all the same.
# Any process may call set() and stats(); the proxy ends with the one that started it.

use strict;
use warnings;

use Cwd qw(abs_path);
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(SOCK_DGRAM);

my $directory = abs_path(dirname(__FILE__) . '/../proxy');
my $patience = 30;
my @started;
my $n_commands = 0;

# One build, also when several tests start at once.
sub build
{
	open my $lock, '>', "$directory/.build.lock" or die "cannot lock: $!";
	flock $lock, LOCK_EX;
	my $output = `make -s -C '$directory' 2>&1`;
	die "the proxy does not build:\n$output" if $? != 0;
}

# upstream: a port of loopback, or host:port of it; port: to listen on (any free one).
sub start
{
	my ($class, %options) = @_;
	build();
	my ($port) = $options{upstream} =~ /(\d+)$/ or die "upstream => '127.0.0.1:PORT'";
	my $self = bless { owner => $$, directory => tempdir('proxy.XXXXXX', TMPDIR => 1, CLEANUP => 1) }, $class;
	$self->{control} = "$self->{directory}/control";
	pipe my $in, my $out or die "cannot make a pipe: $!";
	my $pid = fork // die "cannot fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>&', $out or POSIX::_exit(127);
		exec("$directory/proxy", $port, $options{port} // 0, $self->{control}, $options{seed} // 1)
			or POSIX::_exit(127);
	}
	close $out;
	$self->{pid} = $pid;
	push @started, $self;
	chomp($self->{port} = <$in> // die "the proxy did not start\n");
	return $self;
}

sub port { return $_[0]{port} }
sub url { return "http://127.0.0.1:$_[0]{port}" }

sub set
{
	my ($self, %fault) = @_;
	my $words = join ' ', map { "$_=$fault{$_}" } sort keys %fault;
	$self->command("set $words") eq 'ok' or die "the proxy does not understand: $words\n";
}

# Since the start: connections, requests, replies, and how often each mode struck.
sub stats { my ($self) = @_; return { map { split /=/ } split / /, $self->command('stats') } }

sub command
{
	my ($self, $text) = @_;
	my $local = "$self->{directory}/$$." . ++$n_commands;
	my $socket = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $local, Peer => $self->{control})
		or die "cannot reach the proxy: $!";
	my $answer;
	$socket->send($text) && IO::Select->new($socket)->can_read($patience) && defined $socket->recv($answer, 4096)
		or die "the proxy does not answer\n";
	unlink $local;
	return $answer;
}

sub stop
{
	my ($self) = @_;
	return if $self->{owner} != $$;
	my $pid = delete $self->{pid} // return;
	kill KILL => $pid;
	waitpid $pid, 0;
}

END
{
	my $status = $?;
	$_->stop for @started;
	$? = $status;
}

1;
