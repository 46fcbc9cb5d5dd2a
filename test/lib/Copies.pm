package Copies;

# Copies of a database that is at work: they send nothing, and after adopt() they
# pay nothing twice.  The witness is the wallet that all of them share.

use strict;
use warnings;

use Settlement;
use Test::More;

use Exporter qw(import);
our @EXPORT = qw(asked backlog is_fenced adopted books_agree);

my $n_backlog = 8;
my $serial = 0;

# Trades that wait in the original while `$copy` is made, and are settled by it
# afterwards: the copy has them in its queue all the same.
sub backlog
{
	my ($s, $copy) = @_;
	my $name = 'backlog' . ++$serial;
	$s->sql("SELECT settlement.pause('a backlog for the copies')");
	$s->trades($name, $n_backlog);
	$copy->();
	$s->sql('SELECT settlement.resume()');
	$s->settled_is("$name-", $n_backlog, 'the original settles its backlog');
	return $name;
}

sub asked { my ($s) = @_; my $r = $s->wallet->stats->{requests}; return "$r->{settle} $r->{lookup}" }

# The copy says why it sends nothing, and takes trades in all the same.
sub is_fenced
{
	my ($s, $node, $database, $backlog, $reason) = @_;
	my $state = 'SELECT state FROM settlement.status';
	my $asked = asked($s);
	$serial++;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	ok($node->poll_query_until($database, $state, 'fenced'), 'its status says fenced');
	is($node->safe_psql($database, 'SELECT settlement._identity_problem()'), $reason, 'it says why');
	$node->safe_psql($database, "SELECT settlement.resume() WHERE EXISTS (SELECT FROM settlement.pauses); SELECT put('new of $backlog, $serial')");
	# the workers look again, and have a trade before them
	$node->safe_psql($database, 'SELECT settlement._notify_workers()');
	ok($node->poll_query_until($database, $state, 'fenced'), 'it stays so when there is work');
	like($node->safe_psql($database, "SELECT string_agg(x, ' ') FROM settlement.explain('$backlog-1') x"),
		qr/not known to be the one that may send \(\Q$reason\E\)/, 'explain() says so of a trade');
	like($node->safe_psql($database, "SELECT concat_ws(' ', status, detail, hint) FROM settlement.doctor() WHERE component = 'identity'"),
		qr/^fail .*\Q$reason\E.* SELECT settlement\.adopt\(/, 'doctor() says what to do');
	is($node->safe_psql($database, "SELECT (SELECT count(*) FROM settlement.claims) || ' ' || (SELECT count(*) FROM settlement.queue WHERE trade_id LIKE '%$backlog%')"),
		'0 ' . ($n_backlog + 1), 'nothing is claimed, nothing lost');
	is(asked($s), $asked, 'the wallet is asked nothing');
	return;
}

# After adopt() all settles: what the original has paid since is only looked up.
# $n_unpaid of the backlog it has not.
sub adopted
{
	my ($s, $node, $database, $backlog, $n_unpaid) = @_;
	my $n_new = 1 + ($n_unpaid // 0);
	my $before = $s->wallet->stats;
	my $former = $node->safe_psql($database, 'SELECT epoch FROM settlement.identity');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	# not the question here: which of many copies has the highest
	$s->wallet->ok_json(POST => '/admin/epoch', { epoch => int($former || 0) });
	my $epoch = $node->safe_psql($database, "SELECT settlement.adopt('it is the one from now on')");
	cmp_ok($epoch, '>', $former || 0, 'adopt() raises the epoch');
	ok($node->poll_query_until($database, "SELECT count(*) FROM trades WHERE trade_id LIKE '%$backlog%' AND settlement_status = 'SETTLED'",
		$n_backlog + 1), 'all settles after adopt()');
	ok($node->poll_query_until($database, 'SELECT (SELECT count(*) FROM settlement.queue) + (SELECT count(*) FROM settlement.deferred) + (SELECT count(*) FROM settlement.dlq) = 0'),
		'nothing is left over');
	my $after = $s->wallet->stats;
	is($after->{settle}{effects} - $before->{settle}{effects}, $n_new, 'an effect of each trade that was not paid');
	is($after->{requests}{settle} - $before->{requests}{settle}, $n_new, 'no other was sent');
	is($after->{requests}{lookup} - $before->{requests}{lookup}, $n_backlog + 1, 'all were looked up');
	is($after->{epoch}, $epoch, 'the wallet has seen the epoch');
	is($node->safe_psql($database, "SELECT count(*) || ' ' || min(reason) FROM settlement.audit_log WHERE act = 'adopt'"),
		'1 it is the one from now on', 'the audit log has it');
	books_agree($s, $node, $database);
	$s->wallet->ok_json(POST => '/admin/epoch', { epoch => int($before->{epoch}) });
	return;
}

# Each trade that is SETTLED here is in the ledger once, under the same settlement.
sub books_agree
{
	my ($s, $node, $database) = @_;
	my %ledger;
	my @differ;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$ledger{ $_->{trade_id} }{ $_->{settlement_id} } = 1 for grep { $_->{kind} eq 'settlement' } $s->wallet->ledger;
	for (split /\n/, $node->safe_psql($database, "SELECT trade_id, settlement_id FROM trades WHERE settlement_status = 'SETTLED'"))
	{
		my ($trade, $settlement) = split /\|/;
		push @differ, $trade unless join(',', keys %{ $ledger{$trade} // {} }) eq $settlement;
	}
	is("@differ", '', 'each of its trades is in the ledger once');
	ok($s->wallet->audit->{ok}, "the wallet's own audit finds nothing");
	return;
}

1;
