<?php
// Sends mail as a script does that somebody smuggled in: by mail(), each with another subject.
// Usage: php -d sendmail_path=... -d mail.add_x_header=1 spam.php COUNT
$words = ['win', 'luck', 'gift', 'money', 'dear', 'fast', 'secret', 'offer', 'crown', 'night'];
for ($number = 0; $number < (int) $argv[1]; $number++) {
    $subject = '';
    for ($digits = $number * 7919 + 104729; $digits > 0; $digits = intdiv($digits, 10)) {
        $subject .= $words[$digits % 10] . ' ';
    }
    $to = "victim$number@" . ['web.test', 'mail.test', 'free.test'][$number % 3];
    mail($to, $subject, "Click here.\n", "From: a@shop.test", '-fa@shop.test') || exit(1);
}
echo "sent\n";
