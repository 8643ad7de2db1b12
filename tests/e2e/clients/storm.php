<?php
// Sends one message by mail() again and again, as a broken cron job does.
// Usage: php -d sendmail_path=... storm.php TIMES RECIPIENT
[, $times, $to] = $argv;
for ($number = 0; $number < (int) $times; $number++) {
    $link = "https://shop.test/track?order=100000123";
    mail($to, 'Your order', "Thank you for order 100000123\n$link\n", 'From: shop@shop.test');
}
echo "sent\n";
