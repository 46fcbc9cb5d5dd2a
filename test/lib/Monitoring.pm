package Monitoring;

# The exporters and the Prometheus of this machine, with the files of monitoring/,
# on ports of their own.
#
#   my $m = Monitoring->new($node);		# a PostgreSQL::Test::Cluster
#   $m->start_postgres_exporter; $m->start_sql_exporter; $m->start_prometheus;
#   ... $m->query('settlement_workers') ...
#
# The files are used as they are, but for addresses and for times: everything is
# scraped and evaluated each second, and what an alert waits for (`for:`) is one
# second.  Its true times are the business of promtool's rule tests.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use HTTP::Tiny;
use JSON::PP ();
use POSIX ();
use PostgreSQL::Test::Cluster;
use Time::HiRes qw(time sleep);

my $files = abs_path(dirname(__FILE__) . '/../../monitoring');
my $patience = 30;
my $owner = $$;
my %running;

sub new
{
	my ($class, $node) = @_;
	my $self = bless {
		node => $node, directory => tempdir('monitoring.XXXXXX', TMPDIR => 1, CLEANUP => 1),
		map { ("${_}_port" => PostgreSQL::Test::Cluster::get_free_port()) } qw(postgres sql prometheus)
	}, $class;
	return $self;
}

# The text of a file of monitoring/.
sub text
{
	my ($name) = @_;
	open my $in, '<', "$files/$name" or die "$files/$name: $!";
	local $/;
	return scalar <$in>;
}

sub write_file
{
	my ($self, $name, $text) = @_;
	open my $out, '>', "$self->{directory}/$name" or die $!;
	print $out $text;
	close $out or die $!;
	return "$self->{directory}/$name";
}

# A program that ends with us, whatever ends us.
sub launch
{
	my ($self, $name, %options) = @_;
	my $pid = fork // die "cannot fork: $!";
	if ($pid == 0)
	{
		open STDOUT, '>>', "$self->{directory}/$name.log" or POSIX::_exit(127);
		open STDERR, '>&', \*STDOUT;
		%ENV = (%ENV, %{ $options{env} // {} });
		exec('setpriv', '--pdeathsig', 'KILL', @{ $options{command} }) or POSIX::_exit(127);
	}
	$running{$name} = $pid;
	my $deadline = time + $patience;
	until (HTTP::Tiny->new(timeout => 5)->get($options{url})->{success})
	{
		if (waitpid($pid, POSIX::WNOHANG) == $pid || time > $deadline)
		{
			open my $log, '<', "$self->{directory}/$name.log";
			die "$name does not answer:\n", $log ? <$log> : '';
		}
		sleep 0.05;
	}
}

sub stop
{
	my ($name) = @_;
	my $pid = delete $running{$name} // return;
	kill KILL => $pid;
	waitpid $pid, 0;
}

END
{
	my $status = $?;
	if ($$ == $owner) { stop($_) for keys %running }
	$? = $status;
}

# --------------------------------------------------------------- programs

sub start_postgres_exporter
{
	my ($self) = @_;
	my $node = $self->{node};
	$self->launch('prometheus-postgres-exporter',
		env => { DATA_SOURCE_NAME => join ' ', 'user=prometheus', 'dbname=postgres', 'sslmode=disable',
			'host=' . $node->host, 'port=' . $node->port },
		command => [ 'prometheus-postgres-exporter', "--web.listen-address=127.0.0.1:$self->{postgres_port}",
			'--disable-default-metrics', '--disable-settings-metrics', "--extend.query-path=$files/postgres_exporter.yml" ],
		url => "http://127.0.0.1:$self->{postgres_port}/");
}

sub start_sql_exporter
{
	my ($self) = @_;
	my $node = $self->{node};
	my $config = text('sql_exporter.yml');
	$config =~ s/interval: \K15s/1s/ or die;
	$config =~ s{postgres://\K\S+}{'prometheus@/postgres?sslmode=disable&host=' . $node->host . '&port=' . $node->port}e or die;
	$self->launch('prometheus-sql-exporter',
		command => [ 'prometheus-sql-exporter', "-web.listen-address=127.0.0.1:$self->{sql_port}",
			'-config.file=' . $self->write_file('sql_exporter.yml', $config) ],
		url => "http://127.0.0.1:$self->{sql_port}/");
}

sub start_prometheus
{
	my ($self) = @_;
	my $config = text('prometheus.yml');
	my $alerts = text('alerts.yml');
	$config =~ s/_interval: \K15s/1s/g == 2 or die;
	$config =~ s/localhost:9187/127.0.0.1:$self->{postgres_port}/ or die;
	$config =~ s/localhost:9237/127.0.0.1:$self->{sql_port}/ or die;
	$alerts =~ s/for: \K\S+/1s/g or die;
	$self->write_file('alerts.yml', $alerts);
	$self->launch('prometheus',
		command => [ 'prometheus', '--config.file=' . $self->write_file('prometheus.yml', $config),
			"--storage.tsdb.path=$self->{directory}/tsdb", "--web.listen-address=127.0.0.1:$self->{prometheus_port}" ],
		url => "http://127.0.0.1:$self->{prometheus_port}/-/ready");
}

# ---------------------------------------------------------------- questions

# What the exporter at that port says, in the text format.
sub scrape
{
	my ($self, $which) = @_;
	my $reply = HTTP::Tiny->new(timeout => $patience)->get("http://127.0.0.1:" . $self->{"${which}_port"} . '/metrics');
	die "$which exporter: $reply->{status} $reply->{content}\n" if !$reply->{success};
	return $reply->{content};
}

# The data of Prometheus' HTTP API.
sub api
{
	my ($self, $path, %parameters) = @_;
	my $http = HTTP::Tiny->new(timeout => $patience);
	my $reply = $http->get("http://127.0.0.1:$self->{prometheus_port}/api/v1/$path?" . $http->www_form_urlencode(\%parameters));
	die "$path: $reply->{status} $reply->{content}\n" if !$reply->{success};
	return JSON::PP::decode_json($reply->{content})->{data};
}

# The series of an instant query.
sub query { my ($self, $expr) = @_; return @{ $self->api('query', query => $expr)->{result} } }

# Names of the alerts that fire, as "name job".
sub firing
{
	my ($self) = @_;
	return map { "$_->{labels}{alertname} " . ($_->{labels}{job} // '-') }
		grep { $_->{state} eq 'firing' } @{ $self->api('alerts')->{alerts} };
}

1;
