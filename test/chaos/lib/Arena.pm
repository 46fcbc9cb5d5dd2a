package Arena;

# What is fought over: the server that is primary now, the wallet, the proxy
# between them, and the file in which the inserters read where to connect.
#
# A server is a PostgreSQL::Test::Cluster; it is started and stopped here, since
# that module gives up when a start fails, which after a kill is no surprise.

use strict;
use warnings;

use DBI;
use IO::Handle;
use POSIX ();
use Proxy;
use Settlement;
use Time::HiRes qw(time sleep);
use Watch;

my $state_length = 32;

sub set_up
{
	my ($class, %options) = @_;
	my $directory = $options{directory};
	my $self = bless { directory => $directory, stop => 0, careless => 0, n_nodes => 1, conditions => {} }, $class;

	adopt_orphans();
	open my $token, '>', "$directory/site" or die "$directory/site: $!";
	print $token "chaos\n";
	close $token;
	$self->{settlement} = Settlement->start(name => 'server1', streaming => 1, conf => conf($directory));
	$self->{node} = $self->{settlement}->node;
	$self->{wallet} = $self->{settlement}->wallet;
	$self->{proxy} = Proxy->start(upstream => "127.0.0.1:$self->{wallet}{port}");
	$self->{settlement}->set(wallet_url => $self->{proxy}->url);
	$self->create_tables;
	open $self->{log}, '>', "$directory/faults.log" or die $!;
	$self->{log}->autoflush(1);
	$self->{began} = time;
	open $self->{state}, '+>', "$directory/state" or die $!;
	$self->tell;
	return $self;
}

sub conf
{
	my ($directory) = @_;
	return <<"CONF";
max_connections = 80
max_prepared_transactions = 60
shared_buffers = 128MB
max_wal_size = 2GB
wal_keep_size = 512MB
wal_retrieve_retry_interval = '50ms'
log_replication_commands = off
log_checkpoints = off
autovacuum_naptime = 10s
deadlock_timeout = 200ms
settlement.site_file = '$directory/site'
settlement.workers = 2
settlement.max_workers = 6
settlement.request_timeout = '1s'
settlement.connect_timeout = '500ms'
settlement.retry_initial_backoff = '50ms'
settlement.retry_max_backoff = '1s'
settlement.shutdown_timeout = '1s'
settlement.poll_interval = '250ms'
settlement.log_settlements = none
CONF
}

# Beside public.trades a partitioned table; witness.gone keeps the rows of
# dropped tables.
sub create_tables
{
	my ($self) = @_;
	$self->{settlement}->sql(<<'SQL');
SET ROLE exchange;
CREATE TABLE public.parted (
    trade_id text, symbol text, buy_order_id text, sell_order_id text, buyer_user_id text, seller_user_id text,
    price numeric, quantity numeric, buyer_fee numeric, seller_fee numeric,
    executed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (trade_id, symbol)) PARTITION BY LIST (symbol);
CREATE TABLE public.parted_btc PARTITION OF public.parted FOR VALUES IN ('BTC/USDT', 'ETH_BTC');
CREATE TABLE public.parted_rest PARTITION OF public.parted DEFAULT;
GRANT INSERT ON public.parted TO engine;
RESET ROLE;
SELECT settlement.attach('public.parted');
CREATE TABLE witness.gone (LIKE public.trades);
SQL
}

# All that was ever committed.
sub all_trades
{
	my $columns = 'trade_id, symbol, buyer_user_id, seller_user_id, price, quantity, buyer_fee, seller_fee, '
		. 'settlement_status, settlement_id, settled_at, settlement_attempts, settlement_error';
	return join ' UNION ALL ', map { "SELECT $columns FROM $_" } qw(public.trades public.parted witness.gone);
}

# ---------------------------------------------------------------- what the inserters are told

sub tell
{
	my ($self, %changes) = @_;
	@$self{ keys %changes } = values %changes;
	my $line = sprintf "%d %s %d %d", $self->{node}->port, $self->weather, @$self{qw(stop careless)};
	sysseek $self->{state}, 0, 0;
	syswrite $self->{state}, sprintf('%-' . ($state_length - 1) . "s\n", $line);
}

# (port, weather, stop, careless) for a process that has the file open.
sub listen_to
{
	my ($file) = @_;
	sysseek $file, 0, 0;
	sysread $file, my ($line), $state_length;
	return split ' ', $line;
}

# What is not as usual, by name: `other` (the server itself), `down` (no wallet),
# `held` (sending is stopped or slow by an operator), `rain` (the wallet misbehaves).
sub begin { my ($self, $name, $kind) = @_; $self->{conditions}{$name} = $kind; $self->tell }
sub end { my ($self, $name) = @_; delete $self->{conditions}{$name}; $self->tell }

# A condition that ends with the code, also if that dies.
sub during
{
	my ($self, $name, $kind, $code) = @_;
	$self->begin($name => $kind);
	my $ok = eval { $code->(); 1 };
	my $error = $@;
	$self->end($name);
	die $error unless $ok;
}

# The worst of it; `up` when all is well.
sub weather
{
	my ($self) = @_;
	my %present = reverse %{ $self->{conditions} };
	return (grep { $present{$_} } qw(other down held rain))[0] // 'up';
}

# ---------------------------------------------------------------- what is still to happen

# Let something end after some seconds; what had the same name ends now.
sub later
{
	my ($self, $name, $seconds, $code) = @_;
	$self->finish($name);
	$self->{agenda}{$name} = { at => time + $seconds, code => $code };
}

sub finish
{
	my ($self, $name) = @_;
	my $entry = delete $self->{agenda}{$name} or return;
	eval { $entry->{code}->(); 1 } or $self->log("the end of $name: $@");
}

sub finish_all { my ($self) = @_; $self->finish($_) for sort keys %{ $self->{agenda} } }

# What falls due, and a look at the workers.
sub tick
{
	my ($self) = @_;
	my $agenda = $self->{agenda};
	$self->finish($_) for grep { $agenda->{$_} && $agenda->{$_}{at} <= time } sort keys %$agenda;
	return if time < ($self->{next_sample} // 0);
	$self->{next_sample} = time + 1;
	Watch::sample($self);
}

sub idle
{
	my ($self, $seconds) = @_;
	my $until = time + $seconds;
	do { $self->tick; sleep 0.01 } while time < $until;
}

# Again until it works, as an operator would whose server has just restarted.
sub insist
{
	my ($self, $code) = @_;
	my $deadline = time + 30;
	until (eval { $code->(); 1 })
	{
		die $@ if time > $deadline;
		sleep 0.1;
	}
}

# Inserters still insert.
sub is_loaded
{
	my ($self) = @_;
	return scalar grep { lives($_) } @{ $self->{inserters} // [] };
}

# ---------------------------------------------------------------- what happened

sub log
{
	my ($self, $text) = @_;
	$text =~ s/\s+/ /g;
	printf { $self->{log} } "%9.3f %s\n", time - $self->{began}, $text;
}

sub count_kind { my ($self, $name) = @_; $self->{kinds}{$name}++ }

sub violation
{
	my ($self, $text) = @_;
	push @{ $self->{violations} }, $text;
	$self->log("VIOLATION $text");
}

# Ids of trades that were inserted here: ack or maybe.
sub note
{
	my ($self, $file, @ids) = @_;
	open my $out, '>>', "$self->{directory}/$file.driver" or die $!;
	print $out map { "$_\n" } @ids;
}

sub set_rules
{
	my ($self, @rules) = @_;
	$self->{rules} = \@rules;
	$self->{wallet}->faults(@rules) if $self->{wallet}{pid};
}

# ---------------------------------------------------------------- SQL

sub dsn { my ($host, $port) = @_; return "dbi:Pg:dbname=postgres;host=$host;port=$port;connect_timeout=5" }

sub session
{
	my ($self, %options) = @_;
	my $node = $options{node} // $self->{node};
	my $db = DBI->connect(dsn($node->host, $node->port), $options{user} // 'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, AutoInactiveDestroy => 1 });
	$db->{pg_server_prepare} = 0;
	$db->do("SET statement_timeout = '10s'; SET lock_timeout = '1s'") unless $options{patient};
	# who is to bring the standby back must not wait for it; no timeout ends that
	$db->do('SET synchronous_commit = local') if $self->{standby_is_down};
	return $db;
}

# One value, over a connection that is kept as long as it works.
sub ask
{
	my ($self, $sql, @values) = @_;
	my $value = eval {
		$self->{db} //= $self->session;
		$sql =~ /^\s*SELECT/ ? scalar($self->{db}->selectrow_array($sql, undef, @values)) : $self->{db}->do($sql, undef, @values);
	};
	if (my $error = $@)
	{
		$self->hang_up;
		die $error;
	}
	return $value;
}

sub hang_up { my ($self) = @_; my $db = delete $self->{db}; eval { $db->disconnect } if $db }

sub try { my ($self, $sql, @values) = @_; return eval { $self->ask($sql, @values) } }

# ---------------------------------------------------------------- processes

sub children
{
	my ($pid) = @_;
	open my $list, '<', "/proc/$pid/task/$pid/children" or return;
	return split ' ', scalar(<$list>) // '';
}

sub title
{
	my ($pid) = @_;
	open my $file, '<', "/proc/$pid/cmdline" or return '';
	local $/;
	my $title = <$file> // '';
	$title =~ s/\0.*//s;
	return $title;
}

# Servers that we start become our children when pg_ctl has left: a postmaster
# that nobody has waited for yet counts as alive for the next one.
sub adopt_orphans
{
	my %prctl = (x86_64 => 157, aarch64 => 167);
	my $number = $prctl{ (POSIX::uname())[4] } or return;
	my $set_child_subreaper = 36;
	syscall $number, $set_child_subreaper, 1, 0, 0, 0;
}

sub lives
{
	my ($pid) = @_;
	return 0 if waitpid($pid, POSIX::WNOHANG()) == $pid;
	open my $file, '<', "/proc/$pid/stat" or return 0;
	return 1 if (<$file> // '') =~ /\) [^ZX]/;
	# it died between the two looks, and nobody but us takes it away
	waitpid($pid, POSIX::WNOHANG());
	return 0;
}

# Children of the server whose title matches.
sub processes
{
	my ($self, $pattern, $node) = @_;
	my $postmaster = ($node // $self->{node})->{_pid} or return;
	return grep { title($_) =~ $pattern } children($postmaster);
}

sub wait_gone
{
	my ($seconds, @pids) = @_;
	my $deadline = time + $seconds;
	my @left = @pids;
	while (@left = grep { lives($_) } @left)
	{
		return @left if time > $deadline;
		sleep 0.01;
	}
	return;
}

sub run_quietly { my (@command) = @_; return system(@command) == 0 }

# Waits for whoever still holds the shared memory of the server before it.
sub start_server
{
	my ($self, $node) = @_;
	my $deadline = time + 60;
	until (run_quietly('pg_ctl', '-w', '-t', 60, '-D', $node->data_dir, '-l', $node->logfile,
		'-o', '--cluster-name=' . $node->name, 'start'))
	{
		die 'server ' . $node->name . " does not start\n" if time > $deadline;
		sleep 0.1;
	}
	$node->_update_pid(1);
}

sub stop_server
{
	my ($self, $node, $mode) = @_;
	run_quietly('pg_ctl', '-w', '-t', 60, '-D', $node->data_dir, '-m', $mode, 'stop')
		or die 'server ' . $node->name . " does not stop ($mode)\n";
	$node->{_pid} = undef;
}

# Every process at once.  Children are born while we read: until none is left.
sub kill_server
{
	my ($self, $node) = @_;
	my $postmaster = $node->{_pid};
	my @children = children($postmaster);
	kill KILL => $postmaster, @children;
	my @left = wait_gone(15, $postmaster, @children);
	die "cannot be killed: @left\n" if @left;
	$node->{_pid} = undef;
}

# End all that runs; data and logs stay.
sub tear_down
{
	my ($self) = @_;
	$self->hang_up;
	for my $node (grep { $_ && $_->{_pid} } @$self{qw(node standby)})
	{
		eval { $self->kill_server($node); 1 } or warn $@;
	}
	$self->{wallet}->stop;
	$self->{proxy}->stop;
}

sub wait_connect
{
	my ($self, $seconds) = @_;
	my $deadline = time + $seconds;
	$self->hang_up;
	until (defined $self->try('SELECT 1'))
	{
		die "no connection after $seconds s: $@" if time > $deadline;
		sleep 0.02;
	}
}

1;
