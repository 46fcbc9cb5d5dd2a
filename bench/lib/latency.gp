set terminal svg size 840,420 font 'sans-serif,13' background rgb 'white'
set output output_file
set datafile separator '\t'
set title 'From INSERT to settled: p50 and p99'
set xlabel 'trades inserted per second'
set ylabel 'ms'
set logscale xy
set grid lc rgb '#dddddd'
set xrange [80:5000]
set xtics (100, 1000, 4000)
set key outside right noenhanced
plot for [i=2:columns] data using 1:i with linespoints pt 7 ps 0.6 lw 2 dt 1+i%2 lc i/2 title columnheader(i)
