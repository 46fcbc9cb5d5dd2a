#!/usr/bin/perl
# What was answered in full mode is there after kill -9; what was not, is either
# there with its answer or not at all.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Time::HiRes qw(sleep);
use Walletd qw(new_key read_reply decode);

my $wallet = Walletd->start(db => 'file');
$wallet->fund(qw(alice USDT 100000000 bob BTC 10000));
my (%answered, @sent);
my $n = 0;

for my $round (1 .. 3)
{
	# a steady load from another process, which writes down each answer it reads
	pipe my $in, my $out or die;
	my $child = fork // die;
	if ($child == 0)
	{
		close $in;
		$out->autoflush;
		my @sockets = map { $wallet->connect } 1 .. 8;
		my @buffers = ('') x 8;
		for my $i (1 .. 100000)
		{
			my @keys = map { new_key() } @sockets;
			$sockets[$_]->syswrite($wallet->settle_bytes(
				$wallet->trade(trade_id => "r$round-$i-$_", base_amount => '0.001', quote_amount => '20'), $keys[$_]))
				for 0 .. 7;
			for (0 .. 7)
			{
				my (undef, $body) = read_reply($sockets[$_], \$buffers[$_]);
				POSIX::_exit(0) unless defined $body;
				print $out "$keys[$_] $body\n";
			}
		}
		POSIX::_exit(0);
	}
	close $out;
	my $lines = 0;
	while (my $line = <$in>)
	{
		chomp $line;
		my ($key, $body) = split / /, $line, 2;
		$answered{$key} = $body;
		$wallet->crash if ++$lines == 200 * $round;
	}
	waitpid $child, 0;
	cmp_ok($lines, '>=', 200 * $round, "round_${round}_was_cut_off_in_the_middle_of_work");
	$wallet->launch;

	my $lost = grep { $wallet->look_up($_)->{content} ne $answered{$_} } keys %answered;
	is($lost, 0, 'no_answer_is_lost_or_changed');
	my $audit = $wallet->audit;
	ok($audit->{ok}, 'the_ledger_is_sound') or diag explain $audit;
	is($audit->{answers}, $audit->{settlements}, 'effect_and_answer_are_there_both_or_neither');
	cmp_ok($audit->{settlements}, '>=', scalar keys %answered, 'each_answered_settlement_is_in_the_ledger');
}
is($wallet->stop, 0, 'ends_cleanly');
$wallet->launch;
is(scalar(grep { $wallet->look_up($_)->{content} ne $answered{$_} } (keys %answered)[0 .. 50]), 0,
	'nor_is_anything_lost_by_a_clean_end');
my $binary = $ENV{WALLETD} // Walletd::root() . '/wallet/walletd';
like(`'$binary' --db '$wallet->{db}' --listen 127.0.0.1:0 2>&1`, qr/in use by another walletd/, 'a_second_one_on_the_same_ledger_is_refused');
is($wallet->stop, 0, 'ends_cleanly_again');
done_testing;
