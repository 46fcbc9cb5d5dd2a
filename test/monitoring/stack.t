#!/usr/bin/perl
# A cluster at work, both exporters, and a Prometheus: metrics arrive as they are,
# each alert fires, and each query of the dashboard has an answer.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use Settlement;
use IPC::Run;
use JSON::PP ();
use Monitoring;
use Test::More;

my @jobs = ('settlement', 'settlement-sql');

my $s = Settlement->start(conf => <<'CONF');
settlement.max_workers = 2
settlement.poll_interval = '200ms'
settlement.retry_initial_backoff = '20ms'
settlement.retry_max_backoff = '60ms'
CONF
$s->sql('CREATE ROLE prometheus LOGIN IN ROLE pg_monitor');
my $m = Monitoring->new($s->node);
$m->start_postgres_exporter;
$m->start_sql_exporter;
$m->start_prometheus;

# Lines of prometheus() as {"name labels" => value}.
sub exposed
{
	my ($text) = @_;
	return { map { /^(\w+)\{(.*)\} (\S+)$/ ? (join(' ', $1, sort split /,/, $2) => 0 + $3) : () } split /\n/, $text };
}

# The same of what Prometheus has of a job.
sub scraped
{
	my ($job) = @_;
	my %value;
	for my $series ($m->query(qq({__name__=~"settlement_.*", job="$job"})))
	{
		my %labels = %{ $series->{metric} };
		my $name = delete $labels{__name__};
		$value{ join ' ', $name, map { qq($_="$labels{$_}") } grep { defined $labels{$_} } qw(currency database le) } = 0 + $series->{value}[1];
	}
	return \%value;
}

# Those that stand still while nothing happens.
sub still
{
	my ($values) = @_;
	return { map { ($_ => $values->{$_}) } grep { !/^settlement_(turn|sweeps|.*oldest)/ } keys %$values };
}

sub passes_lint
{
	my $text = $s->sql('SELECT settlement.prometheus()') . "\n";
	my $ok = IPC::Run::run([ 'promtool', 'check', 'metrics' ], '<', \$text, '>', \my $out, '2>&1');
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(($ok ? '' : 'failed: ') . $out, '', 'promtool finds nothing in prometheus()');
}

# SettlementNoMetrics may have fired before the first scrape.
sub no_alert
{
	my ($name) = @_;
	my @firing;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eval { wait_for(sub { @firing = $m->firing; return !@firing }, 'no alert') };
	is_deeply(\@firing, [], $name);
}

sub fires
{
	my ($alert, @from) = @_;
	my %missing;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $ok = eval {
		wait_for(sub {
			%missing = map { ("$alert $_" => 1) } @from;
			delete @missing{ $m->firing };
			return !%missing;
		}, $alert);
	};
	ok($ok, "$alert fires") or diag("not: @{[ keys %missing ]}");
}

scenario healthy => sub {
	$s->trades('good', 400);
	$s->settled_is('good-', 400);
	$s->at_rest;
	# what it shows now has been scraped: the same counts come back twice
	for my $job (@jobs)
	{
		my ($exposed, $scraped);
		eval {
			wait_for(sub {
				$exposed = still(exposed($s->sql('SELECT settlement.prometheus()')));
				$scraped = still(scraped($job));
				return join(' ', map { "$_ $exposed->{$_}" } sort keys %$exposed) eq join(' ', map { "$_ $scraped->{$_}" } sort keys %$scraped);
			}, "the same from $job");
		};
		is_deeply($scraped, $exposed, "Prometheus has from job $job what prometheus() says");
	}
	my @described = grep { /^# \w+ settlement_/ } split /\n/, $s->sql('SELECT settlement.prometheus()');
	is_deeply([ sort grep { /^# \w+ settlement_/ } split /\n/, $m->scrape('postgres') ],
		[ sort grep { !/value_at_risk/ } @described ], 'prometheus-postgres-exporter describes them in the same words');
	passes_lint();
	no_alert('a healthy database raises no alert');
};

# All that alerts tell of: the wallet's doing, the trade table's, ours.
scenario trouble => sub {
	$s->trades('poor', 40, buyer => 'poor');
	$s->becomes("SELECT count(*) FROM settlement.dlq WHERE status = 'FAILED'", 40, 'forty trades are refused');

	$s->set(dead_letter_on_outage => 'on');
	$s->faults({ match => { trade_id => 'lost' }, action => 'close' });
	$s->trade('lost', symbol => 'BTC/USDT', price => 100, quantity => 1);
	$s->status_is('lost', 'UNKNOWN');
	# as if it had been so for an hour
	$s->sql("UPDATE settlement.dlq SET enqueued_at = enqueued_at - interval '1 hour' WHERE trade_id = 'lost'");
	passes_lint();

	$s->sql(<<'SQL');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE TRIGGER refuse BEFORE UPDATE ON trades FOR EACH ROW WHEN (new.trade_id = 'unwritable') EXECUTE FUNCTION refuse();
SQL
	$s->trade('unwritable');
	$s->becomes('SELECT count(*) FROM settlement.unapplied', 1, 'an outcome cannot be written');
	$s->sql("SELECT settlement.pause('test')");
	$s->trade('changed');
	$s->sql("UPDATE trades SET price = price + 1 WHERE trade_id = 'changed'; SELECT settlement.resume()");
	$s->becomes('SELECT count(*) FROM settlement.discrepancies', 1, 'a trade was changed after it was queued');

	$s->sql("SELECT settlement.breaker_open('test')");
	$s->trade('waits');
	# as if it had done so for a minute and a second
	$s->sql("UPDATE settlement.queue SET enqueued_at = enqueued_at - interval '61 s'");
	$s->set(workers => 3);
	$s->becomes("SELECT value FROM settlement.metrics WHERE name = 'workers_wanted'", 3, 'a worker is missing');
	$s->sql("SELECT settlement.pause('forgotten')");
	$s->sql("UPDATE settlement.identity SET reason = 'restored'");
	$s->becomes('SELECT state FROM settlement.status', 'fenced', 'the database is fenced');
};

scenario alerts => sub {
	my @alerts = grep { $_ ne 'SettlementNoMetrics' } Monitoring::text('alerts.yml') =~ /- alert: (\w+)/g;
	fires($_, @jobs) for @alerts;
	my @values = map { "$_->{metric}{job} $_->{value}[1]" } $m->query('settlement_value_at_risk{currency="USDT"}');
	is_deeply([ sort @values ], [ map { "$_ 100" } @jobs ], 'the value at risk is there');
};

scenario annotations => sub {
	my @bad = grep { join(' ', %{ $_->{annotations} }) =~ /<error|%!|<no value>/ } @{ $m->api('alerts')->{alerts} };
	is_deeply(\@bad, [], 'their texts are filled in');
};

# While there is something of everything.
scenario dashboard => sub {
	my $dashboard = JSON::PP::decode_json(Monitoring::text('grafana.json'));
	my ($n, @empty) = (0);
	for my $instance ($m->{postgres_port}, $m->{sql_port})
	{
		for my $panel (@{ $dashboard->{panels} })
		{
			for my $target (@{ $panel->{targets} // [] })
			{
				my $expr = $target->{expr};
				$expr =~ s/\$__rate_interval/5m/g;
				$expr =~ s/\$instance/127.0.0.1:$instance/g;
				$expr =~ s/\$database/postgres/g;
				like($expr, qr/^[^\$]*$/, 'no other variable') if $expr =~ /\$/;
				$n++;
				push @empty, "$panel->{title}: $expr" if !$m->query($expr);
			}
		}
	}
	cmp_ok($n, '>', 40, 'the dashboard has queries');
	is_deeply(\@empty, [], 'each has an answer, from either exporter');
	for my $variable (grep { $_->{type} eq 'query' } @{ $dashboard->{templating}{list} })
	{
		my ($selector, $label) = $variable->{definition} =~ /^label_values\((.*), (\w+)\)$/ or die $variable->{definition};
		$selector =~ s/\$instance/.*/;
		my %values = map { ($_->{metric}{$label} // '' => 1) } $m->query($selector);
		is_deeply([ sort keys %values ], $label eq 'database' ? ['postgres'] : [ sort map { "127.0.0.1:$_" } $m->{postgres_port}, $m->{sql_port} ],
			"one can choose among values of $label");
	}
};

scenario no_metrics => sub {
	$s->node->stop('immediate');
	fires('SettlementNoMetrics', 'settlement-sql');
	Monitoring::stop('prometheus-sql-exporter');
	fires('SettlementNoMetrics', '-');
};

done_testing();
